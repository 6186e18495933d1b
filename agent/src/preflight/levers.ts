import { type CheckResult, tellsAnybody, whyWeakest } from '@sluice/contract';
import { passed } from './result.ts';

/**
 * Whether the levers table knows the Envoy that is to drain, and the one whose drain comes after it (absent: its version can
 * not be had). Never a refusal: where it does not, the drain waits, and nothing is lost by that.
 */
export function checkLevers(serving: string, to: string | undefined): CheckResult {
  const found: string[] = [];
  if (!tellsAnybody(serving)) {
    found.push(
      `warning: ${whyWeakest(serving)}: in this drain nobody is told to leave and nothing idle is closed; each connection is waited for until it ends by itself, or until policy's limit cuts it`,
    );
  }
  if (to !== undefined && to !== serving && !tellsAnybody(to)) {
    found.push(`warning: ${whyWeakest(to)}: when it drains itself one day, nobody is told to leave`);
  }
  return passed('levers', found.length === 0 ? `known of Envoy ${serving}` : found.join('; '));
}
