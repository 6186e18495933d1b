export { becomeEpoch } from './front.ts';
