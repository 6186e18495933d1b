import { KubeConfig } from '@kubernetes/client-node';
import { KubeClient } from '@sluice/xds-server/kube/client';
import { takePart } from '@sluice/xds-server/kube/election';

// One candidate of lease.test.ts: says on stdout when its terms begin and end.
const [file = '', namespace = '', identity = ''] = process.argv.slice(2);
const config = new KubeConfig();
config.loadFromFile(file);
const end = new AbortController();
process.once('SIGTERM', () => end.abort());
const options = { namespace, name: 'sluice-controller', identity, leaseSeconds: 3, renewSeconds: 2, retryMs: 300 };
const lead = ({ fence, signal }: { fence: number; signal: AbortSignal }) => {
  console.log(`leads ${fence}`);
  signal.addEventListener('abort', () => console.log(`over ${fence}`));
};
console.log('ready');
await takePart(new KubeClient(config), options, lead, end.signal);
