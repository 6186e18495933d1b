import { status } from '@grpc/grpc-js';
import { type ResourceKind, typeOfKind, typeOfUrl } from '../resources/types.ts';
import type { Bodies } from './bodies.ts';
import { type ProtoNode, toNode, type XdsNode } from './node.ts';
import { decodeRequest, type ProtoRequest, type XdsCall } from './services.ts';
import { type Mode, type Outgoing, Session } from './session.ts';
import type { Snapshot } from './snapshot.ts';
import type { Request, Settled } from './subscription.ts';
import { withNonce } from './wire.ts';

const ENDS = ['error', 'cancelled', 'close'];
/** Names that one stream may ask for. */
const MAX_NAMES = 200_000;

export interface StreamOptions {
  readonly mode: Mode;
  /** Set for a stream of one kind. */
  readonly kind: ResourceKind | undefined;
  readonly bodies: Bodies;
  /** How long an unsettled response holds back what must come after it, milliseconds. */
  readonly orderTimeoutMs: number;
  snapshotFor(node: XdsNode): Snapshot | undefined;
  /** Takes the whole call, with its first request, where the node is another controller's; false: it is served here. */
  passOn(call: XdsCall, first: Buffer, node: XdsNode): boolean;
  onNode(stream: XdsStream, node: XdsNode): void;
  onSettled(stream: XdsStream, kind: ResourceKind, version: string, settled: Settled): void;
  onUnknownType(stream: XdsStream, typeUrl: string): void;
  onClose(stream: XdsStream): void;
}

/** One stream: gRPC on one side, a Session on the other. */
export class XdsStream {
  readonly #call: XdsCall;
  readonly #options: StreamOptions;
  readonly #session: Session;
  readonly #versions = new Map<ResourceKind, string>();
  readonly #unknown = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #node: XdsNode | undefined;
  #closed = false;

  constructor(call: XdsCall, options: StreamOptions) {
    this.#call = call;
    this.#options = options;
    this.#session = new Session(options.mode);
    call.on('data', this.#onData);
    call.on('end', this.#onEnd);
    for (const event of ENDS) call.on(event, this.#onClose);
  }

  readonly #onData = (bytes: Buffer): void => this.#receive(bytes);
  readonly #onEnd = (): void => this.end();
  readonly #onClose = (): void => this.#close();

  get node(): XdsNode | undefined {
    return this.#node;
  }

  get peer(): string {
    return this.#call.getPeer();
  }

  /** Sends what is new; nothing when the snapshot is the one it has. */
  push(snapshot: Snapshot | undefined): void {
    if (this.#closed || snapshot === undefined || snapshot === this.#session.snapshot) return;
    this.#session.setSnapshot(snapshot);
    this.#flush();
  }

  end(): void {
    if (!this.#closed) this.#call.end();
    this.#close();
  }

  #fail(code: status, details: string): void {
    this.#call.emit('error', { code, details });
    this.#close();
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#options.onClose(this);
  }

  #receive(bytes: Buffer): void {
    if (this.#closed) return;
    let request: ProtoRequest;
    try {
      request = decodeRequest(this.#options.mode, bytes);
    } catch (error) {
      this.#fail(status.INVALID_ARGUMENT, `expected a discovery request: ${(error as Error).message}`);
      return;
    }
    if (this.#node === undefined) {
      // Only the first request of a stream has to name the node.
      const node = toNode(request.node as ProtoNode | null | undefined);
      if (node === undefined) {
        this.#fail(status.INVALID_ARGUMENT, 'expected node.id in the first request, found none');
        return;
      }
      if (this.#passedOn(bytes, node)) return;
      this.#node = node;
      this.#options.onNode(this, this.#node);
      this.#session.setSnapshot(this.#options.snapshotFor(this.#node));
    }
    const kind = this.#kindOf(String(request.type_url ?? ''));
    if (kind === undefined) return;
    const settled = this.#session.request(kind, this.#toRequest(request));
    if (this.#session.size > MAX_NAMES) {
      this.#fail(status.RESOURCE_EXHAUSTED, `expected at most ${MAX_NAMES} names on one stream`);
      return;
    }
    if (settled !== undefined) this.#options.onSettled(this, kind, this.#versions.get(kind) ?? '', settled);
    this.#flush();
  }

  /** Whoever takes the call hears of its end from then on; this is no stream of ours any more. */
  #passedOn(first: Buffer, node: XdsNode): boolean {
    const call = this.#call;
    call.pause();
    call.off('data', this.#onData).off('end', this.#onEnd);
    for (const event of ENDS) call.off(event, this.#onClose);
    if (this.#options.passOn(call, first, node)) {
      this.#close();
      return true;
    }
    call.on('data', this.#onData).on('end', this.#onEnd);
    for (const event of ENDS) call.on(event, this.#onClose);
    call.resume();
    return false;
  }

  /** undefined: a kind that is not served; the client is left to its own timer, once told in the log. */
  #kindOf(typeUrl: string): ResourceKind | undefined {
    const { kind } = this.#options;
    if (kind !== undefined && (typeUrl === '' || typeUrl === typeOfKind(kind).typeUrl)) return kind;
    const found = kind === undefined ? typeOfUrl(typeUrl)?.kind : undefined;
    if (found === undefined && this.#unknown.size < 16 && !this.#unknown.has(typeUrl)) {
      this.#unknown.add(typeUrl);
      this.#options.onUnknownType(this, typeUrl);
    }
    return found;
  }

  #toRequest(request: ProtoRequest): Request {
    const error = request.error_detail as { message?: string } | null | undefined;
    const common = {
      nonce: String(request.response_nonce ?? ''),
      ...(error ? { error: error.message || 'no message' } : {}),
    };
    if (this.#options.mode === 'sotw') return { ...common, names: (request.resource_names ?? []) as string[] };
    return {
      ...common,
      names: (request.resource_names_subscribe ?? []) as string[],
      unsubscribe: (request.resource_names_unsubscribe ?? []) as string[],
      initial: new Map(Object.entries((request.initial_resource_versions ?? {}) as Record<string, string>)),
    };
  }

  #flush(): void {
    for (const outgoing of this.#session.next()) this.#send(outgoing);
    if (this.#session.held) this.#timer ??= setTimeout(() => this.#overdue(), this.#options.orderTimeoutMs).unref();
    else this.#disarm();
  }

  #disarm(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #overdue(): void {
    this.#timer = undefined;
    this.#session.overdue = true;
    for (const outgoing of this.#session.next()) this.#send(outgoing);
  }

  #send(outgoing: Outgoing): void {
    const { version, bytes } = this.#options.bodies.get(this.#options.mode, outgoing);
    this.#versions.set(outgoing.kind, version);
    this.#call.write(withNonce(bytes, outgoing.nonce));
  }
}
