import { CHOSEN_LEVERS, LEVERS, type LeverRow, WEAKEST } from './levers.ts';

/** docs/levers.md, made from the table: `node contract/scripts/docs.ts` writes it, a test compares it. */
export function leversDoc(): string {
  return [
    '# Levers',
    '',
    'What makes a connection of a draining Envoy leave, by version, protocol and the state that it is in when the drain order',
    'comes. `npm run test:matrix` opens every kind of connection on each version, upgrades it, and holds what the client saw',
    'against this table: no request failed, and the connection ended as the column _ends_ says.',
    '',
    'Made from `contract/src/levers.ts`; change it there.',
    '',
    '## For all of a kind',
    '',
    ...table(LEVERS),
    '',
    'The agent asks this table for the version that `envoy --version` tells, each time it decides what acts on a connection; a',
    'patch version counts as its minor version.',
    '',
    `Any other version: ${WEAKEST.effect} (${WEAKEST.evidence.note}). No pressure is set, nothing is marked, nothing idle`,
    'is closed, nothing is cut one by one; what policy gives up at its limit, or a person overrides, ends with the process. Preflight and',
    '`plan` say so by name, for the Envoy that would drain and for the one that would drain after it, and nothing is refused for it.',
    'Whether its binary takes the presets is asked of the binary itself, by `--mode validate` in preflight; one that does not is',
    'refused before anything is touched. On HTTP/3 its own drain may say GOAWAY all the same, which a handover of QUIC needs.',
    '',
    '## Chosen by policy, one by one',
    '',
    ...table(CHOSEN_LEVERS),
    '',
    '## Words',
    '',
    '- _new_: accepted, nothing was ever sent on it. _idle_: asked before, silent now. _active_: a request or session is on it.',
    '  _answering_: the head of the answer is out already.',
    '- _goaway_: told by GOAWAY. _connection-close_: told by `Connection: close`, then FIN. _closed_: FIN without a word.',
    '  _lived-on_: until its client ended it. _cut_: with a request or a session on it.',
    '- _can lose_: a request that is on its way at the moment of the close is lost, as with any server that closes idle',
    '  connections; policy decides whether and when.',
    '',
  ].join('\n');
}

function table(rows: readonly LeverRow[]): string[] {
  return [
    '| Envoy | protocol | state | lever | ends | can lose | effect | evidence |',
    '| --- | --- | --- | --- | --- | --- | --- | --- |',
    ...rows.map((row) => {
      const { kind, on, note } = row.evidence;
      const seen = on.length === 0 ? kind : `${kind} on ${on.join(', ')}`;
      return `| ${[
        `1.${row.from} to 1.${row.to}`,
        row.protocols.join(', '),
        row.states.join(', '),
        `\`${row.lever}\``,
        row.expect,
        row.racy ? 'yes' : 'no',
        row.effect,
        `${seen}: ${note}`,
      ]
        .map((text) => text.replaceAll('|', '\\|'))
        .join(' | ')} |`;
    }),
  ];
}
