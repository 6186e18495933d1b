import type { MemberState, RolloutEntry, RolloutMember, RolloutView } from '@sluice/contract';
import { clean } from '../lib/table.ts';
import { formatSpan } from '../lib/time.ts';

const BAR = 20;
const MARKS: Readonly<Record<MemberState, string>> = {
  waiting: '.',
  current: '=',
  starting: '>',
  draining: '~',
  upgraded: '#',
  failed: '!',
  flipping: '<',
  rolledBack: '-',
  stuck: 'X',
};

/** A rollout and its members, as a live tree draws it. */
export function rolloutLines(view: RolloutView, now: number): string[] {
  const { id, phase, reason, spec, stage, summary, pause } = view;
  const until = pause?.until === undefined ? '' : `, goes on in ${formatSpan(pause.until - now)}`;
  return [
    `${id}  ${phase}  to ${spec.target.to}  stage ${stage.index + 1}/${stage.count}  ${bar(view)} ${haveIt(view)}/${summary.total}`,
    `  ${reason}${until}`,
    ...view.members.map(
      (one) =>
        `  ${MARKS[one.state]} ${one.name}${zone(one)}  ${one.state}  ${one.reason}  ${formatSpan(now - one.since)}`,
    ),
  ].map(clean);
}

export function haveIt({ summary }: RolloutView): number {
  return summary.upgraded + summary.current + summary.draining + summary.flipping + summary.stuck;
}

/** One mark a member, or a part of the fleet where there are many. */
function bar(view: RolloutView): string {
  const { members } = view;
  if (members.length <= BAR) return `[${members.map((one) => MARKS[one.state]).join('')}]`;
  const full = Math.round((haveIt(view) / members.length) * BAR);
  return `[${'#'.repeat(full)}${'.'.repeat(BAR - full)}]`;
}

function zone(member: RolloutMember): string {
  return member.zone === '' ? '' : ` (${member.zone})`;
}

export function entryLine(entry: RolloutEntry): string {
  const time = new Date(entry.at).toISOString().slice(11, 23);
  return clean(`${time}  ${entry.phase.padEnd(11)}  ${entry.event}: ${entry.text}`);
}
