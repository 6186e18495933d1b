import { setTimeout as delay } from 'node:timers/promises';
import { isTerminal, type ProxyView, toSluiceError, type UpgradeView, type WatchItem } from '@sluice/contract';
import { Command } from 'commander';
import type { ApiClient } from '../lib/api-client.ts';
import { EXIT } from '../lib/failure.ts';
import { type Io, print } from '../lib/io.ts';
import { client, controllerOption } from '../lib/options.ts';
import { type Column, type Format, outputOption, printData, printList } from '../lib/output.ts';
import { formatSpan } from '../lib/time.ts';
import type { Plan } from '../program.ts';
import { apply, EMPTY, type Model } from '../view/model.ts';
import { Screen } from '../view/screen.ts';
import { treeLines } from '../view/tree.ts';
import { recordLine } from '../view/upgrade.ts';

interface Options {
  readonly watch?: boolean;
  readonly controller: string;
  readonly output: Format;
}

export function getCommand(plan: Plan): Command {
  return new Command('get')
    .description('show proxies, their epochs and upgrades')
    .argument('[proxy]')
    .option('-w, --watch', 'go on showing changes: a live tree on a terminal, plain lines without one')
    .addOption(controllerOption())
    .addOption(outputOption())
    .action((proxy: string | undefined, options: Options) =>
      plan((io) => {
        const api = client(options);
        if (options.watch === true) return watch(io, api, proxy, options.output);
        return proxy === undefined ? list(io, api, options.output) : one(io, api, proxy, options.output);
      }),
    );
}

async function list(io: Io, api: ApiClient, format: Format): Promise<number> {
  const [proxies, upgrades] = await Promise.all([api.proxies(), api.upgrades()]);
  const newest = (proxy: ProxyView): UpgradeView | undefined =>
    upgrades.filter((u) => u.proxy === proxy.proxy).sort((a, b) => b.createdAt - a.createdAt)[0];
  const now = Date.now();
  const columns: Column<ProxyView>[] = [
    { title: 'PROXY', of: (p) => p.proxy },
    { title: 'AGENT', of: (p) => (p.connected ? 'connected' : 'away') },
    { title: 'SERVING', of: (p) => p.serving?.version ?? '-' },
    { title: 'EPOCHS', of: (p) => String(p.epochs.filter((e) => e.state !== 'ended').length) },
    { title: 'UPGRADE', of: (p) => newest(p)?.phase ?? '-' },
    { title: 'PROTECTED', of: (p) => String(newest(p)?.verdict?.protected ?? '-') },
    { title: 'SINCE', of: (p) => sinceText(newest(p), now) },
    { title: 'ID', of: (p) => newest(p)?.id ?? '-', wide: true },
    { title: 'REASON', of: (p) => newest(p)?.reason ?? '-', wide: true },
    { title: 'SLOTS', of: (p) => p.agents.map((a) => a.slot).join(','), wide: true },
  ];
  const whole = { items: proxies };
  await printList(io, format, proxies, {
    columns,
    name: (p) => p.proxy,
    whole,
    empty: 'no proxies yet: no agent has connected',
  });
  return EXIT.ok;
}

function sinceText(upgrade: UpgradeView | undefined, now: number): string {
  return upgrade === undefined ? '-' : formatSpan(now - upgrade.phaseSince);
}

async function one(io: Io, api: ApiClient, name: string, format: Format): Promise<number> {
  const proxy = await api.proxy(name);
  if (await printData(io, format, proxy)) return EXIT.ok;
  if (format === 'name') print(io, proxy.proxy);
  else {
    const upgrades = (await api.upgrades()).filter((u) => u.proxy === name);
    const model: Model = {
      proxies: new Map([[name, proxy]]),
      upgrades: new Map(upgrades.map((u) => [u.id, u])),
      synced: true,
    };
    print(io, treeLines(model, Date.now()).join('\n'));
  }
  return EXIT.ok;
}

/** Until it is interrupted; through a controller that goes away meanwhile. */
async function watch(io: Io, api: ApiClient, only: string | undefined, format: Format): Promise<number> {
  const signal = io.interrupted();
  // A name that is not known, or a controller that is not there, is told at once and not watched for.
  if (only === undefined) await api.proxies();
  else await api.proxy(only);
  const show = viewFor(io, only, format);
  try {
    for (let lost = 0; !signal.aborted; lost++) {
      try {
        for await (const item of api.watch(signal)) {
          if (item.kind === 'synced') lost = 0;
          show.item(item);
        }
      } catch (thrown) {
        const error = toSluiceError(thrown);
        if (signal.aborted) break;
        if (error.code !== 'CONTROLLER_AWAY') throw thrown;
        show.lost(error.message);
      }
      await delay(Math.min(3_000, 200 * 2 ** Math.min(lost, 10)), undefined, { signal }).catch(() => undefined);
    }
  } finally {
    show.end();
  }
  return EXIT.ok;
}

interface View {
  item(item: WatchItem): void;
  lost(why: string): void;
  end(): void;
}

function viewFor(io: Io, only: string | undefined, format: Format): View {
  if (format === 'json' || format === 'yaml') return dataView(io, only);
  return io.out.isTTY === true && format !== 'name' ? treeView(io, only) : lineView(io, only);
}

/** One JSON object a line; a stream of YAML would be the same lines, for JSON is YAML. */
function dataView(io: Io, only: string | undefined): View {
  const of = (item: WatchItem): string | undefined =>
    item.kind === 'proxy'
      ? item.proxy.proxy
      : item.kind === 'upgrade'
        ? item.upgrade.proxy
        : item.kind === 'record'
          ? item.record.proxy
          : undefined;
  return {
    item(item) {
      const proxy = of(item);
      if (proxy !== undefined && (only === undefined || proxy === only)) print(io, JSON.stringify(item));
    },
    lost: (why) => void io.err.write(`${why}; trying again\n`),
    end() {},
  };
}

function lineView(io: Io, only: string | undefined): View {
  let model = EMPTY;
  const phases = new Map<string, string>();
  const last = new Map<string, number>();
  return {
    item(item) {
      const next = apply(model, item, only);
      model = next.model;
      for (const record of next.records) {
        // After a lost connection everything comes again.
        if (record.seq <= (last.get(record.upgradeId) ?? 0)) continue;
        last.set(record.upgradeId, record.seq);
        print(io, recordLine(record));
      }
      if (item.kind === 'upgrade' && model.upgrades.has(item.upgrade.id)) {
        const { id, proxy, phase, reason, verdict } = item.upgrade;
        const line = `${proxy}  ${id}  ${phase}  ${isTerminal(phase) || verdict === undefined ? reason : `${verdict.protected} protected of ${verdict.total}: ${reason}`}`;
        if (phases.get(id) !== line) print(io, line);
        phases.set(id, line);
      }
      if (item.kind === 'synced') {
        for (const p of model.proxies.values()) {
          print(io, `${p.proxy}  ${p.connected ? 'connected' : 'away'}  serves ${p.serving?.version ?? 'nothing'}`);
        }
      }
    },
    lost: (why) => void io.err.write(`${why}; trying again\n`),
    end() {},
  };
}

/** At most ten times a second on changes, and each second for the ages. */
function treeView(io: Io, only: string | undefined): View {
  const screen = new Screen(io);
  let model = EMPTY;
  let note: string | undefined;
  let due: NodeJS.Timeout | undefined;
  const draw = (): void => {
    due = undefined;
    screen.draw([...treeLines(model, Date.now()), ...(note === undefined ? [] : [note])]);
  };
  const soon = (): void => {
    due ??= setTimeout(draw, 100);
  };
  const ages = setInterval(draw, 1_000);
  return {
    item(item) {
      if (item.kind === 'synced') note = undefined;
      model = apply(model, item, only).model;
      soon();
    },
    lost(why) {
      note = `the controller is away, this is its last word (${why})`;
      soon();
    },
    end() {
      clearInterval(ages);
      clearTimeout(due);
      draw();
    },
  };
}
