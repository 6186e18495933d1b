import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { text } from 'node:stream/consumers';
import { RedirectLoad } from '../../matrix/redirect-load.ts';
import type { Targets } from '../load/client.ts';
import { startUpstream } from '../upstream/server.ts';
import { APP_PORTS } from './mesh-ports.ts';

/**
 * The app of a Pod: serves, and calls WORLD (as Targets, JSON) through its sidecar. `/start` begins its calls, `/stop` ends them and
 * tells whom the app has seen, `/result` is given whom the world has seen.
 */
const world = JSON.parse(process.env.WORLD ?? '{}') as Targets;
const { http: web, tcp, http2, grpc, control } = APP_PORTS;
const app = await startUpstream({ http: web, tcp, http2, grpc, control });
let load: RedirectLoad | undefined;
const lag = monitorEventLoopDelay({ resolution: 10 });
lag.enable();
const driver = http.createServer(async (request, response) => {
  const body = await text(request);
  let answer: unknown = null;
  if (request.url === '/start') load = new RedirectLoad(world);
  if (request.url === '/stop') {
    await load?.stop();
    answer = [...app.seen];
  }
  if (request.url === '/result') {
    const { answered = 0, failures = [] } = load?.result(new Map(JSON.parse(body) as [string, number][])) ?? {};
    const again = synRetrans();
    // What the clock of a busy process takes for a lost SYN, the kernel of this namespace knows better.
    const real = failures.filter((what) => again > 0 || !what.endsWith('(SYN sent again)'));
    answer = { answered, failures: real, lagMs: Math.round(lag.max / 1e6), synRetrans: again };
  }
  response.end(JSON.stringify(answer));
});
driver.listen(APP_PORTS.load, '127.0.0.1');
await once(driver, 'listening');
console.log('app ready');

/** How many SYNs this network namespace sent again: a connect that is late without one waited for nobody but us. */
function synRetrans(): number {
  const [names = '', values = ''] = readFileSync('/proc/net/netstat', 'utf8').match(/^TcpExt: .*$/gm) ?? [];
  return Number(values.split(' ')[names.split(' ').indexOf('TCPSynRetrans')]);
}
