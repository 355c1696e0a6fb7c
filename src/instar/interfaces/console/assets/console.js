// What a page can do beyond its HTML: values under the pointer of a chart, a page that keeps itself current, links that
// MLflow's clients print.
// Every page is complete without this file.

import { readouts } from "./chart.js";
import { keepCurrent } from "./current.js";
import { follow } from "./links.js";

follow(location);
addEventListener("hashchange", () => follow(location));
readouts(document);
keepCurrent(document.querySelector("main[data-every]"), readouts);
