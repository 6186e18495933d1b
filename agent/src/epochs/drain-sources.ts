import { type Connection, canChoose } from '@sluice/contract';
import { withAnswering } from '../witnesses/answering.ts';
import { shutdownSocket } from '../witnesses/close.ts';
import { type KernelView, KernelWitness } from '../witnesses/kernel.ts';
import { UnknownRequests } from '../witnesses/unknown-requests.ts';
import { costOf } from './cost.ts';
import { type DrainSources, STALE_AFTER_MS } from './drain-watch.ts';
import type { Epoch } from './epoch.ts';
import { isAlive } from './proc.ts';

/** The witnesses of one old epoch, each with its word or why it can not be heard. */
export function drainSources(epoch: Epoch, now: () => number): DrainSources {
  const { pid, wasm, version } = epoch.meta;
  const readKernel = kernelReader(epoch);
  /** One look counts and lists by the same reading, so that the two never differ. */
  let view: KernelView | undefined;
  const { table } = epoch;
  const unknown = new UnknownRequests();
  return {
    envoy: version,
    kernel: async () => {
      const at = now();
      view = undefined;
      try {
        view = readKernel();
        return { name: 'kernel', open: view.open, at };
      } catch (error) {
        // No process holds no socket.
        return isAlive(epoch.process)
          ? { name: 'kernel', at, why: (error as Error).message }
          : { name: 'kernel', at, open: 0, why: 'the process is gone' };
      }
    },
    admin: async () => {
      const at = now();
      try {
        const before = table.tally();
        const seen = await epoch.admin.downstream();
        unknown.read(before, seen.requestsActive, now());
        return { witness: { name: 'admin', open: seen.open, at }, requestsActive: seen.requestsActive };
      } catch (error) {
        unknown.unheard();
        return { witness: { name: 'admin', at, why: (error as Error).message } };
      }
    },
    filter: () => {
      const { heardAt } = table;
      if (!wasm)
        return { witness: { name: 'filter', at: now(), why: 'this Envoy is built without V8' }, connections: [] };
      if (heardAt === undefined) return { witness: { name: 'filter', at: now(), why: 'never heard' }, connections: [] };
      const connections = table.connections();
      const silent = now() - heardAt;
      if (silent > STALE_AFTER_MS) {
        return { witness: { name: 'filter', at: heardAt, why: `not heard for ${silent} ms` }, connections };
      }
      const complete = table.complete();
      return { witness: { name: 'filter', open: table.open(), at: heardAt }, connections, complete };
    },
    ...(!wasm && { kernelList: kernelLister(epoch, () => view?.sockets ?? [], now) }),
    answering: (connections) => withAnswering(connections, view?.sockets ?? []),
    accepts: () => view?.listens === true && epoch.meta.steeredAround !== true,
    unknownInFlight: () => unknown.bound(table.tally(), now()),
    close: (ids) => {
      if (wasm) table.close(ids);
      else for (const id of ids) shutdownSocket(pid, Number(id));
    },
    mark: (ids) => table.mark(ids),
    // Without it all that is to be cut ends with the process.
    ...(canChoose(version, 'cut') && {
      cut: (ids) => {
        if (wasm) table.cut(ids);
        else for (const id of ids) shutdownSocket(pid, Number(id));
      },
    }),
    cost: (at) => costOf(pid, at),
  };
}

/** One witness for all looks: it remembers what an epoch that accepts no more can hold. */
function kernelReader(epoch: Epoch): () => KernelView {
  let addresses = epoch.meta.listenAddresses;
  let witness = new KernelWitness(epoch.meta.pid, addresses ?? []);
  return () => {
    if (epoch.meta.listenAddresses !== addresses) {
      addresses = epoch.meta.listenAddresses;
      witness = new KernelWitness(epoch.meta.pid, addresses ?? []);
    }
    return witness.read();
  };
}

/**
 * The connections of an Envoy without the filter, as the kernel lists them: the socket's inode for an id, and no more
 * known than whether its listener speaks HTTP. One of a listener that is not known to be all HTTP counts as TCP.
 */
function kernelLister(epoch: Epoch, sockets: () => KernelView['sockets'], now: () => number): () => Connection[] {
  const firstSeen = new Map<number, number>();
  return () => {
    const { httpAddresses = [] } = epoch.meta;
    const ports = new Set(httpAddresses.map((a) => a.slice(a.lastIndexOf(':'))));
    return sockets().map(({ inode, local, peer }) => {
      const openedAt = firstSeen.get(inode) ?? now();
      firstSeen.set(inode, openedAt);
      const http = httpAddresses.includes(local) || ports.has(local.slice(local.lastIndexOf(':')));
      return {
        epoch: epoch.number,
        id: String(inode),
        peer,
        local,
        listener: '',
        protocol: http ? 'unknown' : 'tcp',
        openedAt,
      };
    });
  };
}
