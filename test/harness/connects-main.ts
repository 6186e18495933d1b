import { newConnections } from './connects.ts';

// The load of connects.ts as a process of its own, for one that has to be in another network namespace. Arguments: port,
// new connections a second. Says each hundred answers, and its counts on SIGTERM.
const [port, perSecond] = process.argv.slice(2).map(Number);
const load = newConnections(port ?? 0, perSecond ?? 0);
let said = 0;
const timer = setInterval(() => {
  for (; said + 100 <= load.counts.answered; said += 100) console.log(`answered ${said + 100}`);
}, 20);
process.once('SIGTERM', async () => {
  const counts = await load.stop();
  clearInterval(timer);
  console.log(`counts ${JSON.stringify(counts)}`);
});
