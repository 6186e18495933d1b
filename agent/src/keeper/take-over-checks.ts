import { readFileSync } from 'node:fs';
import { type CheckResult, type ErrorCode, SluiceError } from '@sluice/contract';
import { probe } from '../binaries/probe.ts';
import type { EpochPlan } from '../epochs/handover.ts';
import type { PeerState } from '../handoff/peer.ts';
import { ENVOY_METHODS } from '../methods/index.ts';
import { preflight } from '../preflight/index.ts';
import { failed, passed } from '../preflight/result.ts';
import { readSurroundings, sharedChecks } from '../preflight/shared.ts';
import type { KeeperContext } from './context.ts';

/** Throws the first thing that two agents do not share, before anything of the peer's is touched. */
export function checkShared(peer: PeerState): void {
  throwFirst(sharedChecks(readSurroundings(), peer.surroundings ?? {}));
}

/**
 * The preflight of a take-over from the other slot's Envoy: of the new binary and bootstrap as of any upgrade, and of what
 * the peer tells of the old one, whose process and files are not to be seen from here. Throws the first that failed.
 */
export async function checkTakeOver(context: KeeperContext, peer: PeerState, plan: EpochPlan): Promise<void> {
  const { config, registry, log } = context;
  const { checks } = await preflight({
    binary: plan.binary,
    mergedBootstrap: JSON.parse(readFileSync(plan.folder.bootstrap, 'utf8')),
    concurrency: plan.concurrency,
    runFolder: registry.root,
    udpAddresses: [],
    quic: false,
    hotRestart: config.hotRestart,
    wish: 'hot-restart',
    methods: ENVOY_METHODS,
    probe,
  });
  const all = [...checks, udp(peer)];
  log('info', 'take-over checked', { from: peer.slot, failed: all.filter(({ ok }) => !ok).map(({ name }) => name) });
  throwFirst(all);
}

/** The packets of QUIC connections are passed on by the broker of one agent only, so far. */
function udp({ udp: found = [] }: PeerState): CheckResult {
  if (found.length === 0) return passed('UDP', 'no UDP listener');
  return failed('UDP', 'PREFLIGHT_UDP', `the peer's Envoy listens on ${found.join(', ')} by UDP or QUIC`);
}

function throwFirst(checks: readonly CheckResult[]): void {
  const bad = checks.find(({ ok }) => !ok);
  if (bad === undefined) return;
  const code = bad.code?.replace(/^SLUICE_/, '') as ErrorCode;
  throw new SluiceError(code, `${bad.name}: ${bad.found}`, bad.hint === undefined ? {} : { hint: bad.hint });
}
