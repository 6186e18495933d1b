import { join } from 'node:path';
import { LiveEpochs } from '../../epochs/live-epochs.ts';
import type { Standing } from '../../handoff/standing.ts';
import type { FrontContext } from '../../keeper/front.ts';
import { type CommandEpoch, CommandFolder } from './epoch.ts';
import type { HeldSockets } from './sockets.ts';
import type { ResolvedSpec } from './spec.ts';

/** What the parts of this front end share. */
export interface CommandContext extends FrontContext<CommandEpoch> {
  readonly registry: CommandRegistry;
  readonly standing: Standing;
  readonly spec: ResolvedSpec;
  /** Set before the first epoch is started. */
  sockets: HeldSockets;
}

export class CommandRegistry extends LiveEpochs<CommandEpoch> {
  readonly root: string;

  constructor(runFolder: string) {
    super();
    this.root = join(runFolder, 'epochs');
  }

  folders(): CommandFolder[] {
    return CommandFolder.all(this.root);
  }

  /** A number that was never used, with its folder made. */
  create(): CommandFolder {
    const folder = new CommandFolder(this.root, (this.folders().at(-1)?.epoch ?? -1) + 1);
    folder.create();
    return folder;
  }
}
