/**
 * `node --import @sluice/agent/listen-fd/behind server.js`: until `migrate` accepts, this process lets those go first that
 * serve, from before the server's own code is loaded. A process that begins is busy for half a second, and that is felt.
 */
import { giveWay, letGoFirst } from '../native/sched.ts';
import { coresIdle } from './cores.ts';
import { stepBehind } from './warm-up.ts';

// While modules load no timer of this process runs that could end it: where nothing is left it would never be loaded.
stepBehind(coresIdle() ? giveWay : letGoFirst);
