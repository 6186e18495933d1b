import { type ChildProcess, fork } from 'node:child_process';

const REPLY_LIMIT_MS = 120_000;

const OWN = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of OWN) child.kill('SIGKILL');
});

/** A client process of a bench: one question, one answer. Ended with us. */
export class Worker<Question, Answer> {
  readonly child: ChildProcess;
  private readonly name: string;

  private constructor(name: string, child: ChildProcess) {
    this.name = name;
    this.child = child;
  }

  /** `main`: a TypeScript file that calls `answerParent`; `config` is its first argument, `flags` are Node's. */
  static start<Q, A>(main: URL, config: unknown, flags: readonly string[] = []): Worker<Q, A> {
    const child = fork(main, [JSON.stringify(config)], {
      execArgv: ['--conditions=sluice-source', ...flags],
      serialization: 'advanced',
    });
    const worker = new Worker<Q, A>(main.pathname.split('/').at(-1) ?? 'worker', child);
    OWN.add(child);
    child.once('exit', () => OWN.delete(child));
    return worker;
  }

  /** @throws Error when it ends or says nothing within `limitMs` */
  ask(question: Question, limitMs = REPLY_LIMIT_MS): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const settle = (work: () => void) => {
        clearTimeout(timer);
        this.child.off('message', onAnswer).off('exit', onExit);
        work();
      };
      const onAnswer = (answer: unknown) => settle(() => resolve(answer as Answer));
      const onExit = (code: number | null) => settle(() => reject(new Error(`${this.name} ended with ${code}`)));
      const timer = setTimeout(
        () => settle(() => reject(new Error(`${this.name} gave no answer within ${limitMs} ms`))),
        limitMs,
      );
      this.child.on('message', onAnswer).on('exit', onExit);
      this.child.send(question as object);
    });
  }

  stop(): void {
    this.child.kill('SIGKILL');
  }
}

/** The worker's side. It ends when its parent does. */
export function answerParent<Question, Answer>(answer: (question: Question) => Promise<Answer>): void {
  process.on('disconnect', () => process.exit(0));
  process.on('message', (question: Question) => {
    answer(question).then(
      (reply) => process.send?.(reply),
      (error: Error) => {
        console.error(error);
        process.exit(1);
      },
    );
  });
}
