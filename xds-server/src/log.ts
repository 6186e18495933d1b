/** The few calls of a logger that the controller makes; pino fits. */
export interface Log {
  debug(fields: object, text: string): void;
  info(fields: object, text: string): void;
  warn(fields: object, text: string): void;
  error(fields: object, text: string): void;
}

export const SILENT: Log = { debug() {}, info() {}, warn() {}, error() {} };
