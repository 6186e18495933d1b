import { OpenLoop, type OpenLoopOptions, type OpenLoopQuestion, type OpenLoopReport } from './open-loop.ts';
import { answerParent } from './worker.ts';

export type OpenLoopAnswer = OpenLoopReport | { readonly perSecond: number };

/** The open loop as a process. */
const load = new OpenLoop(JSON.parse(process.argv[2] ?? '{}') as OpenLoopOptions);
answerParent<OpenLoopQuestion, OpenLoopAnswer>(async (question) => {
  if (question === 'report') return load.report();
  if ('saturate' in question)
    return { perSecond: await load.saturate(question.saturate.ms, question.saturate.inFlight) };
  if ('rate' in question) load.run(question.rate);
  else load.hold(question.hold);
  return { perSecond: 0 };
});
