// What a page can do beyond its HTML: values under the pointer of a chart, a page that keeps itself current, changes that are
// confirmed, links that MLflow's clients print.
// Every page can be read without this file.

import { readouts } from "./chart.js";
import { confirmations } from "./confirm.js";
import { keepCurrent } from "./current.js";
import { follow } from "./links.js";

follow(location);
addEventListener("hashchange", () => follow(location));
readouts(document);
confirmations(document);
keepCurrent(document.querySelector("main[data-every]"), readouts);
