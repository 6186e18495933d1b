/** The phases of one upgrade, in the order of a good one; docs/architecture.md draws them with every failure exit. */
export const PHASES = [
  /** Recorded, not yet begun: the agent is away, or another upgrade of the same proxy is being started. */
  'Idle',
  /** The agent checks the target; the serving epoch has not been touched. */
  'Preflight',
  /** The new epoch is starting; the old one still accepts. */
  'Starting',
  /** The new epoch accepts; connections of the old one are told to leave, or waited for. */
  'Draining',
  /** The agent's verdict: the old epoch holds nothing that is protected. */
  'SafeToReset',
  /** The controller authorised the reset; the agent is ending the old epoch. */
  'Resetting',
  /** The old epoch has ended. */
  'Done',
  /** Refused or given up; the epoch that served before serves still. */
  'Failed',
  /** The version that served before serves again. */
  'RolledBack',
] as const;

export type Phase = (typeof PHASES)[number];

export const TERMINAL_PHASES: readonly Phase[] = ['Done', 'Failed', 'RolledBack'];

export function isTerminal(phase: Phase): boolean {
  return TERMINAL_PHASES.includes(phase);
}
