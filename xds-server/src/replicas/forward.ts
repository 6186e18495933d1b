import { SluiceError } from '@sluice/contract';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Replica } from './membership.ts';

/** Names the replica that passed a call on: one is passed on once only. */
const FORWARDED_BY = 'sluice-forwarded-by';
/** Longer than any call takes: a check runs the target's `--mode validate`. */
const CALL_MS = 95_000;

export interface ForwardOptions {
  /** This replica; undefined: it is alone. */
  readonly self: string | undefined;
  /** The replica that a proxy belongs to; undefined: this one. */
  readonly elsewhere: (proxy: string) => Replica | undefined;
  /** The other replica that leads; undefined: this one does, or it is not known who. */
  readonly leader: () => Replica | undefined;
  /** The proxy of an upgrade. */
  readonly proxyOf: (upgradeId: string) => Promise<string | undefined>;
}

/**
 * Passes a call on to the replica that can answer it, and its answer back. Not a redirect: whoever calls through a port-forward or
 * an ingress can not reach the address of one replica. What is only read is answered from the state here when that one is away.
 */
export function forwardCalls(api: FastifyInstance, { self, elsewhere, leader, proxyOf }: ForwardOptions): void {
  api.addHook('preHandler', async (request, reply) => {
    if (self === undefined) return;
    const proxy = await about(request, proxyOf);
    // Rollouts are carried out by the leader.
    const lead = request.method === 'POST' && (request.routeOptions.url ?? '').includes('/rollouts');
    const to = lead ? leader() : proxy === undefined ? undefined : elsewhere(proxy);
    if (to === undefined) return;
    try {
      if (request.headers[FORWARDED_BY] !== undefined) {
        // The two do not agree yet who lives.
        throw new SluiceError('CONTROLLER_AWAY', `replica ${self}: this call is for ${to.id}`, { hint: 'try again' });
      }
      return await forward(to, self, request, reply);
    } catch (thrown) {
      if (request.method !== 'GET') throw thrown;
    }
  });
}

/** The proxy that a call is about; undefined: about none, or about all. */
async function about(request: FastifyRequest, proxyOf: ForwardOptions['proxyOf']): Promise<string | undefined> {
  const { proxy, id } = request.params as { proxy?: string; id?: string };
  const route = request.routeOptions.url ?? '';
  if (proxy !== undefined) return proxy;
  if (id !== undefined) return route.includes('/upgrades/') ? proxyOf(id) : undefined;
  const named = (request.body as { proxy?: unknown } | null | undefined)?.proxy;
  return route.endsWith('/upgrades') && typeof named === 'string' ? named : undefined;
}

async function forward({ id, api }: Replica, self: string, request: FastifyRequest, reply: FastifyReply) {
  let answer: Response;
  let text: string;
  try {
    const hasBody = request.body !== undefined && request.body !== null;
    answer = await fetch(`${api}${request.url}`, {
      method: request.method,
      headers: { [FORWARDED_BY]: self, ...(hasBody && { 'content-type': 'application/json' }) },
      ...(hasBody && { body: JSON.stringify(request.body) }),
      redirect: 'error',
      signal: AbortSignal.timeout(CALL_MS),
    });
    text = await answer.text();
  } catch (cause) {
    throw new SluiceError('CONTROLLER_AWAY', `replica ${id} at ${api} does not answer: ${(cause as Error).message}`, {
      cause,
      // Of a call that changes something: what is only read is answered here then. Nobody can tell how far it came.
      hint: 'it may have been done all the same: look, in some seconds, when another one has taken over, before trying again',
    });
  }
  for (const name of ['content-type', 'location']) {
    const value = answer.headers.get(name);
    if (value !== null) reply.header(name, value);
  }
  return reply.code(answer.status).send(text);
}
