// Links that MLflow's clients print, /#/experiments/EXPERIMENT/runs/RUN: the server sees no more of them than "/", which led here.

const PRINTED = /^#\/experiments\/(exp_\w+)(?:\/runs\/(run_\w+))?/;

/** The page of the console that a printed link means; null for any other address. */
export function meant({ pathname, hash }) {
  const found = PRINTED.exec(hash);
  const project = /^\/console\/([^/]+)/.exec(pathname);
  if (!found || !project) return null;
  const runs = `/console/${project[1]}/runs`;
  return found[2] ? `${runs}/${found[2]}` : `${runs}?experiment=${found[1]}`;
}

/** Go there. */
export function follow(location) {
  const there = meant(location);
  if (there) location.replace(there);
}
