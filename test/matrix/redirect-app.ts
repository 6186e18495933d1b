import { once } from 'node:events';
import http from 'node:http';
import { text } from 'node:stream/consumers';
import { startUpstream } from '../harness/upstream/server.ts';
import { RedirectLoad } from './redirect-load.ts';
import { OUTSIDE, PORTS, WORLD } from './redirect-pod.ts';

/**
 * The app of the Pod: serves, and calls the world. Driven over a Unix socket, which knows no network namespace: `/load`
 * starts its calls, `/stop` ends them and tells whom the app has seen, `/result` is given whom the world has seen.
 */
const app = await startUpstream({ ...PORTS, http2: 8082, grpc: 8083, control: 8084 });
let load: RedirectLoad | undefined;
const control = http.createServer(async (request, response) => {
  const body = await text(request);
  let answer: unknown = null;
  if (request.url === '/load') load = new RedirectLoad({ host: WORLD, tls: 0, ...OUTSIDE });
  if (request.url === '/stop') {
    await load?.stop();
    answer = [...app.seen];
  }
  if (request.url === '/result') answer = load?.result(new Map(JSON.parse(body) as [string, number][]));
  response.end(JSON.stringify(answer));
});
control.listen(process.argv[2]);
await once(control, 'listening');
console.log('app ready');
