import { Population, type PopulationOptions, type PopulationReport } from './population.ts';
import { answerParent } from './worker.ts';

/** The population as a process: `start` opens it and answers when all are open, `report` tells what it saw by now. */
const population = new Population(JSON.parse(process.argv[2] ?? '{}') as PopulationOptions);
answerParent<'start' | 'report', PopulationReport>(async (question) => {
  if (question === 'start') await population.start();
  return population.report();
});
