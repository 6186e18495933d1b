import { parseArgs } from 'node:util';
import { SluiceError } from '@sluice/contract';

export interface DemoOptions {
  readonly json: string | undefined;
  readonly quick: boolean;
  /** Versions in the order they serve: one more than there are upgrades. */
  readonly versions: readonly string[];
  /** Requests per second. */
  readonly rate: number;
  /** Length of streams, WebSockets and TCP sessions. */
  readonly sessionMs: number;
  readonly warmUpMs: number;
  readonly silentIdleGraceMs: number;
  /** Keep logs and run folder. */
  readonly keep: boolean;
}

export const USAGE = `usage: npm run demo -- [--json FILE] [--quick] [--from VERSION] [--to VERSION] [--flips N] [--rate R] [--keep]
  --json FILE   write the result, times in epoch milliseconds
  --quick       shorter sessions and a shorter grace for silent connections; ends within 50 s
  --from, --to  Envoy versions (1.36.4 1.37.0 1.38.3 1.39.3 1.40.0), default 1.38.3 and 1.40.0
  --flips N     upgrades one after the other, default 2; without --from and --to, more than 2 go through four versions
  --rate R      requests per second, default 1000
  --keep        keep the folder with the logs`;

/** Beyond two flips, each of these follows the one before it: newer ones and older ones, each pair another jump. */
const CYCLE = ['1.38.3', '1.40.0', '1.36.4', '1.39.3'];

/** @throws SluiceError CONFIG_INVALID */
export function parseOptions(args: readonly string[]): DemoOptions | 'help' {
  let values: Record<string, string | boolean | undefined>;
  try {
    ({ values } = parseArgs({
      args: [...args],
      options: {
        json: { type: 'string' },
        quick: { type: 'boolean' },
        from: { type: 'string' },
        to: { type: 'string' },
        flips: { type: 'string' },
        rate: { type: 'string' },
        keep: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
      },
    }));
  } catch (error) {
    throw new SluiceError('CONFIG_INVALID', (error as Error).message, { hint: 'see npm run demo -- --help' });
  }
  if (values.help === true) return 'help';
  const quick = values.quick === true;
  const flips = number('flips', values.flips, 2, 1, 100);
  return {
    json: values.json as string | undefined,
    quick,
    versions: versionsOf(flips, values.from as string | undefined, values.to as string | undefined),
    rate: number('rate', values.rate, 1000, 50, 20_000),
    sessionMs: quick ? 7_000 : 30_000,
    warmUpMs: quick ? 2_500 : 5_000,
    silentIdleGraceMs: quick ? 4_000 : 30_000,
    keep: values.keep === true,
  };
}

export function versionsOf(flips: number, from: string | undefined, to: string | undefined): string[] {
  const path = Array.from({ length: flips + 1 }, (_, i) => i);
  if (from === undefined && to === undefined && flips > 2) return path.map((i) => CYCLE[i % CYCLE.length] as string);
  return path.map((i) => (i % 2 === 0 ? (from ?? '1.38.3') : (to ?? '1.40.0')));
}

function number(name: string, value: unknown, preset: number, least: number, most: number): number {
  if (value === undefined) return preset;
  const found = Number(value);
  if (Number.isInteger(found) && found >= least && found <= most) return found;
  throw new SluiceError('CONFIG_INVALID', `--${name}: expected ${least} to ${most}, found ${String(value)}`);
}
