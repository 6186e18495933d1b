/**
 * Version of the agent-controller messages. A controller speaks every version from OLDEST_SUPPORTED up to its own, so a
 * newer controller works with older agents; the agent says its version in `hello`, the controller answers with the one
 * that both will use (the smaller).
 */
export const PROTOCOL_VERSION = 1;
export const OLDEST_SUPPORTED = 1;

/** The version both sides use, or undefined when they share none. */
export function negotiateVersion(theirs: number, ours = PROTOCOL_VERSION): number | undefined {
  const common = Math.min(theirs, ours);
  return Number.isInteger(common) && common >= OLDEST_SUPPORTED ? common : undefined;
}
