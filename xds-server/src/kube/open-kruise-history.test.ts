import type { V1Pod } from '@kubernetes/client-node';
import type { EpochState } from '@sluice/contract';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { epochSaid as epoch } from '../testing/epoch-said.ts';
import { A, B, EMPTY, OURS, pod, sidecarSet, WISH } from '../testing/kruise-story.ts';
import { decideKruisePod, undoOf } from './open-kruise.ts';
import type { AgentWords } from './provider.ts';

/** A Pod, its kubelet and its agents, beside OpenKruise as its code has it: `findContainerToHotUpgrade`, `flipPodSidecarContainerDo`. */
class World {
  images: [string, string] = [A, EMPTY];
  runs: [string, string] = [A, EMPTY];
  words: [EpochState | undefined, EpochState | undefined] = ['serving', undefined];
  working: '1' | '2' = '1';
  hash = `h-${A}`;
  turn: string | undefined;
  /** Connections of the old epoch are left. */
  holds = true;
  readonly bad: boolean;

  constructor(bad: boolean) {
    this.bad = bad;
  }

  get pod(): V1Pod {
    const stuck = this.runs.findIndex((image, n) => image === B && this.words[n] === undefined && this.bad);
    const { images, working, hash, turn, runs } = this;
    return pod({
      images,
      working,
      hash,
      runs,
      ...(turn && { turn }),
      ...(stuck >= 0 && { stuck: `proxy-${stuck + 1}` }),
    });
  }

  get agents(): AgentWords {
    const [one, two] = this.words.map((state) => state && { epochs: [epoch(state, !this.holds)] });
    return { '1': one, '2': two };
  }

  /** OpenKruise gives the Empty container the new image when its turn has come. */
  upgrade(): void {
    if (this.turn !== '4' || this.hash === `h-${B}`) return;
    const n = this.images.indexOf(EMPTY);
    if (n >= 0 && this.images[1 - n] !== B) {
      this.images[n] = B;
      this.working = n === 0 ? '1' : '2';
    }
    this.hash = `h-${B}`;
  }

  /** OpenKruise makes the one that it does not take for the working one Empty, as soon as the other one is ready. */
  flip(): void {
    const n = Number(this.working) - 1;
    if (this.images[1 - n] === EMPTY || this.runs[n] !== this.images[n]) return;
    if (this.images[n] !== EMPTY && this.words[n] === undefined) return;
    this.images[1 - n] = EMPTY;
  }

  kubelet(): void {
    for (const n of [0, 1] as const) {
      if (this.runs[n] === this.images[n]) {
        // A start that comes to its end: the new one takes over.
        if (this.runs[n] === B && !this.bad && this.words[n] === undefined) {
          this.words[n] = 'serving';
          if (this.words[1 - n] === 'serving') this.words[1 - n] = 'draining';
        }
        continue;
      }
      // preStop: what drains is waited for; what serves is not held.
      if (this.words[n] === 'draining' && this.holds) continue;
      this.runs[n] = this.images[n];
      this.words[n] = undefined;
    }
  }

  take(step: ReturnType<typeof decideKruisePod>): void {
    if (!('patch' in step)) return;
    const { metadata, spec } = step.patch as {
      metadata: V1Pod['metadata'];
      spec?: { containers: { image: string }[] };
    };
    const label = (metadata?.labels as Record<string, string | null> | undefined)?.['turn.sluice.dev/sidecar'];
    if (label !== undefined) this.turn = label ?? undefined;
    const notes = metadata?.annotations ?? {};
    const working = notes['kruise.io/sidecarset-working-hotupgrade-container'];
    if (working !== undefined) this.working = working.endsWith('1"}') ? '1' : '2';
    if (notes['kruise.io/sidecarset-hash'] !== undefined) this.hash = '';
    if (spec !== undefined) this.images[Number(step.change.container.slice(-1)) - 1] = spec.containers[0]?.image ?? '';
  }
}

it('in whatever order OpenKruise, the kubelet and we act, somebody serves, and it comes to its end', () => {
  const set = sidecarSet(B, OURS, { 'sluice.dev/turn': '4' });
  const act = fc.constantFrom('step', 'upgrade', 'flip', 'kubelet', 'drained');
  fc.assert(
    fc.property(fc.array(act, { maxLength: 40 }), fc.boolean(), (acts, bad) => {
      const world = new World(bad);
      let undone = false;
      const once = (what: string) => {
        if (what === 'upgrade') world.upgrade();
        if (what === 'flip') world.flip();
        if (what === 'kubelet') world.kubelet();
        if (what === 'drained') world.holds = false;
        if (what !== 'step') return;
        const step = decideKruisePod(world.pod, set, WISH, world.agents);
        if (step.type === 'failed' && step.undo !== undefined) {
          undone = true;
          world.take(undoOf(world.pod, 'sidecar', WISH, step.undo, step.why));
        } else if (!undone) world.take(step);
      };
      for (const what of [
        ...acts,
        ...Array.from({ length: 6 }, () => ['drained', 'step', 'upgrade', 'kubelet', 'flip', 'kubelet']).flat(),
      ]) {
        once(what);
        expect(world.words).toContain('serving');
      }
      expect(world.images).toEqual(bad ? [A, EMPTY] : [EMPTY, B]);
      expect(world.runs).toEqual(world.images);
    }),
    { numRuns: 1_000 },
  );
});
