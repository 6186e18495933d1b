import { KubeConfig } from '@kubernetes/client-node';
import { resolveConfig } from '@sluice/xds-server/config';
import { openController } from '@sluice/xds-server/controller';
import { KubeClient } from '@sluice/xds-server/kube/client';
import { takePart } from '@sluice/xds-server/kube/election';
import { KubeMembers } from '@sluice/xds-server/replicas/kube-members';
import { ResourceStore } from '@sluice/xds-server/store/resource-store';
import { pino } from 'pino';

// One of several controllers over one API server, as a process of its own. Says on stdout when its terms of leading begin and end.
const { kubeconfig, namespace, id, election, replicas, ...config } = JSON.parse(process.argv[2] ?? '{}');
const kube = new KubeConfig();
kube.loadFromFile(kubeconfig);
const client = new KubeClient(kube);
const log = pino({ level: 'debug', base: { component: 'controller', id } }, pino.destination(2));
const membership = new KubeMembers(client, { namespace, id, log, ...replicas });
const store = new ResourceStore({ client, namespace, log });
const controller = await openController(resolveConfig(config), store, log, { membership });
const end = new AbortController();
const identity = `${id}/${process.pid}`;
const elected = takePart(
  client,
  { namespace, name: 'sluice-controller', identity, log, ...election },
  ({ fence, signal }) => {
    console.log(`leads ${fence} ${Date.now()}`);
    signal.addEventListener('abort', () => console.log(`over ${fence} ${Date.now()}`));
  },
  end.signal,
);
console.log(`controller ready api=${controller.apiPort} xds=${controller.xdsPort}`);
process.once('SIGTERM', async () => {
  end.abort();
  await Promise.all([controller.close(), elected]);
  process.exit(0);
});
