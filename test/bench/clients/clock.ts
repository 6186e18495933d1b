/** Epoch ms, finer than Date.now(), and the same in all processes of a machine. */
export function now(): number {
  return performance.timeOrigin + performance.now();
}
