import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { PolicyPatch } from '@sluice/contract';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { endEpochs, KeeperProcess } from '../harness/keeper.ts';
import { claimBlock } from '../harness/ports.ts';
import { startUpstream, type UpstreamPorts } from '../harness/upstream/server.ts';
import { type Identity, identity, matrixBootstrap, TRANSPORTS, type Where } from './bootstrap.ts';

/** A keeper without a controller, its Envoy with a listener for each transport, and the upstream behind it. */
export interface Rig {
  readonly keeper: KeeperProcess;
  readonly where: Where;
  readonly identity: Identity;
  /** How often the upstream saw each request id. */
  readonly seen: ReadonlyMap<string, number>;
  /** Lets the upstream go on with what a request of that id asked it to hold. */
  release(id: string): void;
  /** Until the drain order has been applied to the old epoch. */
  upgrade(to: string): Promise<void>;
  close(): Promise<void>;
}

export async function startRig(version: string, policy: PolicyPatch): Promise<Rig> {
  const block = await claimBlock();
  const dir = path.join(block.dir, 'run');
  mkdirSync(dir);
  const where = {} as Record<keyof Where, number | string>;
  for (const transport of TRANSPORTS) {
    where[transport] = transport === 'unix' ? path.join(block.dir, 'in.sock') : await block.port();
  }
  const ports: UpstreamPorts = {
    http: await block.port(),
    http2: await block.port(),
    grpc: await block.port(),
    tcp: await block.port(),
    control: await block.port(),
  };
  const gates = new Gates();
  const upstream = await startUpstream(ports, (id) => gates.of(id).promise);
  const ids = identity();
  const bootstrap = path.join(block.dir, 'envoy.json');
  writeFileSync(bootstrap, JSON.stringify(matrixBootstrap(where, ports, ids)));
  let keeper: KeeperProcess | undefined;
  const close = async () => {
    keeper?.child.kill('SIGKILL');
    endEpochs(dir);
    await upstream.close();
    await block.release();
  };
  try {
    const envoy = await envoyBinary(version);
    const baseId = block.baseId();
    keeper = await KeeperProcess.start({ proxy: 'matrix', dir, bootstrap, envoy, baseId, concurrency: 2, policy });
  } catch (error) {
    await close();
    throw error;
  }
  const started = keeper;
  return {
    keeper: started,
    where,
    identity: ids,
    seen: upstream.seen,
    release: (id) => gates.of(id).resolve(),
    async upgrade(to) {
      const answer = await started.call('POST', '/v1/upgrade', { to: await envoyBinary(to) });
      if (answer.body.ok !== true) throw new Error(`the upgrade was refused: ${JSON.stringify(answer.body)}`);
      await started.line('drain order applied');
    },
    close,
  };
}

/** What the upstream is asked to hold, by request id, until the client lets go. */
class Gates {
  readonly #gates = new Map<string, PromiseWithResolvers<void>>();

  of(id: string): PromiseWithResolvers<void> {
    const gate = this.#gates.get(id) ?? Promise.withResolvers<void>();
    this.#gates.set(id, gate);
    return gate;
  }
}
