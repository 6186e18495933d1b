export type LogLevel = 'debug' | 'info' | 'warn' | 'error';
export type Log = (level: LogLevel, message: string, fields?: Record<string, unknown>) => void;

const ORDER: readonly LogLevel[] = ['debug', 'info', 'warn', 'error'];

/** One JSON object a line. Hand-written: a logging library would cost every Pod a few megabytes. */
export function jsonLog(minimum: LogLevel, write: (line: string) => void, fixed: Record<string, unknown> = {}): Log {
  return (level, message, fields) => {
    if (ORDER.indexOf(level) < ORDER.indexOf(minimum)) return;
    write(`${JSON.stringify({ time: new Date().toISOString(), level, message, ...fixed, ...fields })}\n`);
  };
}
