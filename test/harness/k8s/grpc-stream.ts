import grpc from '@grpc/grpc-js';
import { ECHO_SERVICE } from '../upstream/answers.ts';

const ECHO_EVERY_MS = 500;

export interface StreamEnd {
  /** Of gRPC: 0 = OK, 14 = UNAVAILABLE. */
  readonly code: number;
  readonly details: string;
  readonly ms: number;
  readonly sent: number;
  readonly echoed: number;
}

export interface GrpcStream {
  /** Resolves with the first echo. */
  readonly begun: Promise<void>;
  readonly end: Promise<StreamEnd>;
}

/** One bidirectional stream on a connection of its own, with an echo each half a second; the client ends it after that time. */
export function grpcStream(address: string, lengthMs: number): GrpcStream {
  const options = { 'grpc.enable_retries': 0, 'grpc.use_local_subchannel_pool': 1 };
  const client = new grpc.Client(address, grpc.credentials.createInsecure(), options);
  const { path, requestSerialize, responseDeserialize } = ECHO_SERVICE.bidi;
  const call = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize);
  const begun = performance.now();
  let sent = 0;
  let echoed = 0;
  const write = () => call.write(Buffer.from(String(sent++)));
  const timer = setInterval(() => {
    if (performance.now() - begun < lengthMs) {
      write();
      return;
    }
    clearInterval(timer);
    call.end();
  }, ECHO_EVERY_MS);
  write();
  const first = Promise.withResolvers<void>();
  const end = new Promise<StreamEnd>((resolve) => {
    call.on('data', (answer: Buffer) => {
      if (answer.toString() === String(echoed)) echoed++;
      first.resolve();
    });
    call.on('error', () => {});
    call.on('status', ({ code, details }: grpc.StatusObject) => {
      clearInterval(timer);
      client.close();
      first.reject(new Error(`the stream ended before its first echo: ${code} ${details}`));
      resolve({ code, details, ms: Math.round(performance.now() - begun), sent, echoed });
    });
  });
  return { begun: first.promise, end };
}
