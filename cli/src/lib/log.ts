import { Option } from 'commander';

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export function logOption(): Option {
  return new Option('--log-level <level>', 'least level that is logged')
    .choices(LOG_LEVELS)
    .default('info')
    .env('SLUICE_LOG_LEVEL');
}
