import { type ConnectionRecord, Crowd, type CrowdOptions, type CrowdQuestion } from './crowd.ts';
import { answerParent } from './worker.ts';

export interface CrowdReport {
  readonly records: readonly ConnectionRecord[];
  readonly failures: readonly string[];
}

/** A crowd as a process. */
const crowd = new Crowd(JSON.parse(process.argv[2] ?? '{}') as CrowdOptions);
answerParent<CrowdQuestion, CrowdReport>(async (question) => {
  if (question === 'start') crowd.start();
  else if (question !== 'report') crowd.drain(question.drain);
  return { records: crowd.records, failures: crowd.failures };
});
