import { startController } from '@sluice/xds-server/main';

// A controller as a process of its own, for tests that kill it. Its configuration is one JSON argument.
const controller = await startController(JSON.parse(process.argv[2] ?? '{}'), { signals: true });
console.log(`controller ready api=${controller.apiPort} xds=${controller.xdsPort}`);
await controller.done;
