import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { SluiceError } from '@sluice/contract';
import { asOthers, giveWay } from '../native/sched.ts';

/** A process that gives way to others may be kept from running at all: then it asks for its share after so long. */
const COURTESY_MS = 5_000;
const LIMIT_MS = 30_000;
/** V8 remembers what a function has seen once it has run some times. */
const RINGS = 100;

/** Of the whole process: behind.ts may have been loaded from another copy of this package. */
interface Place {
  /** It gives way. Without that a process keeps what its user gave it. */
  behind?: boolean;
  /** It has connections, or is about to have them, or it has waited long enough. */
  forward?: boolean;
}
const PLACE = Symbol.for('sluice.listen-fd.place');
const holder = globalThis as { [PLACE]?: Place };
holder[PLACE] ??= {};
const place = holder[PLACE];

/** Until the process takes sockets over, but not for longer than COURTESY_MS, the others go first. */
export function stepBehind(how: (pid: number) => void = giveWay): void {
  if (place.behind || place.forward) return;
  place.behind = true;
  how(process.pid);
  setTimeout(stepForward, COURTESY_MS).unref();
}

/** Ends that for good. */
export function stepForward(): void {
  if (place.behind && !place.forward) asOthers(process.pid);
  place.forward = true;
}

/**
 * Serves nobody any more: what is left, its exit too, is nothing that others should wait for. Only for a process that gave
 * way when it started: what another one starts meanwhile would inherit it, and nobody asked for that.
 */
export function stepAside(how: (pid: number) => void = giveWay): void {
  if (!place.behind) return;
  how(process.pid);
  setTimeout(() => asOthers(process.pid), COURTESY_MS).unref();
}

/** Where the server answers while it is warmed up. */
export interface WarmUpAddress {
  readonly host: string;
  readonly port: number;
}

export interface Cold {
  readonly server: Server;
  /** Is given a port of the loopback interface that is open until it ends. */
  readonly ask: (address: WarmUpAddress) => Promise<void>;
}

/**
 * Sends requests of the caller's own through servers before they serve: code that has not run yet is several times as
 * slow, and all the load comes at once when a process takes over. Over TCP, as later: what V8 compiled for another kind of
 * socket it would compile again. Resolves when all are warm, with what `ask` threw, or that it took 30 s. `doorbell`: path of
 * a Unix socket that is this process's alone.
 */
export async function warmUp(servers: readonly Cold[], doorbell: string): Promise<Error[]> {
  stepBehind();
  const asked = Promise.allSettled(servers.map(({ server, ask }) => warmed(server, ask)));
  await rehearse(doorbell, asked);
  const failed = (await asked).filter((one) => one.status === 'rejected');
  return failed.map(({ reason }) => (reason instanceof Error ? reason : new Error(String(reason))));
}

/**
 * What a successor does to this process, between the requests: one more kind of socket seen later would have V8 throw away
 * what it has compiled for the serving of requests, in the moment in which the load moves. Until told to end.
 */
async function rehearse(doorbell: string, end: Promise<unknown>): Promise<void> {
  let over = false;
  void end.then(() => {
    over = true;
  });
  const door = createServer({ pauseOnConnect: true }, (socket) => socket.destroy());
  await new Promise<void>((resolve) => {
    door.once('error', () => resolve()); // `migrate` will say it
    door.once('close', () => resolve());
    const ring = (left: number): void => {
      if (over || left === 0) door.close();
      else
        connect(doorbell)
          .on('error', noop)
          .once('close', () => ring(left - 1));
    };
    door.listen(doorbell, () => ring(RINGS));
  });
}

async function warmed(server: Server, ask: (address: WarmUpAddress) => Promise<void>): Promise<void> {
  const door = createServer({ allowHalfOpen: true, noDelay: true }, (socket: Socket) =>
    server.emit('connection', socket),
  );
  const sockets = new Set<Socket>();
  door.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve, reject) => {
    door.once('error', reject);
    door.listen(0, 'localhost', resolve);
  });
  const { address: host, port } = door.address() as AddressInfo;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new SluiceError('EPOCH_TIMEOUT', `expected warmUp to end within ${LIMIT_MS} ms, found it runs`)),
      LIMIT_MS,
    );
  });
  try {
    await Promise.race([ask({ host, port }), late]);
  } finally {
    clearTimeout(timer);
    for (const socket of sockets) socket.destroy();
    door.close();
  }
}

function noop(): void {}
