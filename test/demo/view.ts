import type { ProxyView, UpgradeView } from '@sluice/contract';
import { bar, duration, fit, number, type Paint, pad, right } from './format.ts';

/** What the live view is drawn from. */
export interface Scene {
  readonly now: number;
  readonly startedAt: number;
  readonly total: number;
  readonly failed: number;
  readonly perSecond: number;
  readonly step: number;
  readonly steps: number;
  readonly proxy?: ProxyView | undefined;
  readonly upgrade?: UpgradeView | undefined;
  readonly peak: number;
}

/** The lines of the live view. Pure. */
export function draw(scene: Scene, paint: Paint): string[] {
  const failed = scene.failed === 0 ? paint.good('0 failed') : paint.bad(`${scene.failed} FAILED`);
  const load = `${number(scene.total)} requests, ${number(scene.perSecond)}/s, ${failed}`;
  const lines = [
    `${paint.bold('Sluice')}  upgrade ${scene.step} of ${scene.steps}  ${paint.dim(duration(scene.now - scene.startedAt))}  ${load}`,
  ];
  for (const epoch of scene.proxy?.epochs ?? []) {
    const state = epoch.state === 'serving' ? paint.good(pad(epoch.state, 9)) : paint.accent(pad(epoch.state, 9));
    lines.push(
      `  epoch ${right(String(epoch.epoch), 2)}  Envoy ${pad(epoch.version, 7)} ${state} ${paint.dim(`pid ${epoch.pid}`)}`,
    );
  }
  const { upgrade } = scene;
  if (upgrade === undefined) return lines;
  lines.push(`  ${paint.bold(upgrade.phase)}: ${upgrade.reason}`);
  const verdict = upgrade.verdict;
  if (verdict !== undefined && upgrade.resetAt === undefined) {
    lines.push(
      `  ${paint.accent(bar(verdict.total, scene.peak, 30))} ${verdict.total} old, ${verdict.protected} protected`,
    );
    lines.push(`  ${paint.dim(reasons(upgrade))}`);
  }
  return lines;
}

/** Old connections by the reason why they are held, `3 upgrade, 2 tcp`. */
export function reasons(upgrade: UpgradeView): string {
  const byReason = new Map<string, number>();
  for (const { reason } of upgrade.verdict?.held ?? []) byReason.set(reason, (byReason.get(reason) ?? 0) + 1);
  return [...byReason].map(([reason, count]) => `${count} ${reason}`).join(', ');
}

/** Draws over itself in a terminal; without one, says a line when there is something to say. */
export class Screen {
  private drawn = 0;
  private readonly out: NodeJS.WriteStream;
  readonly live: boolean;

  constructor(out: NodeJS.WriteStream) {
    this.out = out;
    this.live = out.isTTY === true;
  }

  say(text: string): void {
    this.clear();
    this.out.write(`${text}\n`);
  }

  draw(lines: readonly string[]): void {
    if (!this.live) return;
    this.clear();
    // A line that wraps would take two rows, and the next drawing would miss one.
    const width = this.out.columns ?? 80;
    this.out.write(`${lines.map((line) => fit(line, width)).join('\n')}\n`);
    this.drawn = lines.length;
  }

  private clear(): void {
    // Up, and erase to the end of the screen.
    if (this.drawn > 0) this.out.write(`\x1b[${this.drawn}A\x1b[0J`);
    this.drawn = 0;
  }
}
