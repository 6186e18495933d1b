// A server of somebody who has read docs/listen-fd.md and has nothing but the installed package.
import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import { migrate } from '@sluice/agent/listen-fd';

const [socket, http1Address, http2Address] = process.argv.slice(2);
const answer = (_request, response) => response.end(`${process.pid}`);

async function askHttp1(address) {
  for (let n = 0; n < 20; n++) {
    const [response] = await once(http.get({ ...address, agent: false }), 'response');
    response.resume();
    await once(response, 'end');
  }
}

const migration = await migrate(
  [
    { server: http.createServer(answer), addresses: [http1Address], warmUp: askHttp1 },
    { server: http2.createServer(answer), addresses: [http2Address] },
  ],
  { socket },
);
process.on('SIGTERM', () => migration.drain());
console.log(migration.takenOver ? 'serving, taken over' : 'serving');
const { drained, left } = await migration.drained;
console.log(`drained ${drained}, left ${left.length}`);
process.exit(0);
