export { ApiClient } from './lib/api-client.ts';
export { callAgent, waitForAgent } from './lib/local-client.ts';
export { apply as applyWatchItem, EMPTY as EMPTY_MODEL, type Model } from './view/model.ts';
export { treeLines } from './view/tree.ts';
