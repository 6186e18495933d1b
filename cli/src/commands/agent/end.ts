import { writeFileSync } from 'node:fs';
import { type EndReport, nameCut } from '@sluice/agent/handoff/end-report';
import { SluiceError } from '@sluice/contract';

/** What an end has cut, for a person; undefined when nothing was. */
export function cutText({ cut, why }: EndReport): string | undefined {
  if (cut.length === 0) return undefined;
  return `expected time for ${cut.length} protected connections, found none left: ${why}; cut were ${nameCut(cut)}`;
}

/**
 * The exit code of an agent that was told to end: 0, or GRACE_TOO_SHORT where the kubelet's clock has cut connections. The
 * last word of a container is shown by `kubectl describe`.
 */
export function exitOfEnd(report: EndReport | undefined, log: string | undefined): number {
  const said = report && cutText(report);
  if (said === undefined) return 0;
  if (log !== undefined) writeLastWord(log, said);
  if (report?.byGrace !== true) return 0;
  throw new SluiceError('GRACE_TOO_SHORT', said);
}

/** The kubelet shows the last 4096 bytes. */
function writeLastWord(file: string, text: string): void {
  try {
    writeFileSync(file, text.slice(0, 4_000));
  } catch {
    // The same is in the log.
  }
}
