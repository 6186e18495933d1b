/**
 * `node --import @sluice/agent/listen-fd/behind server.js`: until `migrate` accepts, this process lets those go first that
 * serve, from before the server's own code is loaded. A process that begins is busy for half a second, and that is felt.
 */
import { letGoFirst } from '../native/sched.ts';
import { BEHIND } from './warm-up.ts';

letGoFirst(process.pid);
Object.assign(globalThis, { [BEHIND]: true });
