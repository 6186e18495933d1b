import { Argument, Command } from 'commander';
import { print } from '../lib/io.ts';
import { buildProgram, type Plan } from '../program.ts';

export function completionCommand(plan: Plan): Command {
  return new Command('completion')
    .description('print a completion script: source <(sluice completion bash)')
    .addArgument(new Argument('<shell>').choices(['bash', 'zsh']))
    .action((shell: string) =>
      plan(async (io) => {
        print(
          io,
          `${shell === 'zsh' ? 'autoload -U +X bashcompinit && bashcompinit\n' : ''}${script(wordsByCommand())}`,
        );
        return 0;
      }),
    );
}

/** For each command path (`agent wait`): the words that may follow. */
export function wordsByCommand(): Map<string, string[]> {
  const words = new Map<string, string[]>();
  const visit = (command: Command, path: string): void => {
    const flags = command.options.map((o) => o.long ?? o.flags);
    words.set(path, [...command.commands.map((c) => c.name()), ...flags, '--help']);
    for (const sub of command.commands) visit(sub, `${path} ${sub.name()}`.trim());
  };
  visit(
    buildProgram(() => undefined),
    '',
  );
  return words;
}

function script(words: Map<string, string[]>): string {
  const cases = [...words].map(([path, list]) => `    '${path}') words='${list.join(' ')}' ;;`).join('\n');
  return `_sluice() {
  local path='' words='' i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "\${COMP_WORDS[i]}" in -*) break ;; *) case "$path \${COMP_WORDS[i]}" in ' '*) path="\${COMP_WORDS[i]}" ;; 'agent '*|'rollout '*) path="$path \${COMP_WORDS[i]}" ;; esac ;; esac
  done
  case "$path" in
${cases}
    *) words='' ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -F _sluice sluice
`;
}
