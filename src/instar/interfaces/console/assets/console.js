// What a page can do beyond its HTML: values under the pointer of a chart, and a page that keeps itself current.
// Every page is complete without this file.

import { readouts } from "./chart.js";
import { keepCurrent } from "./current.js";

readouts(document);
keepCurrent(document.querySelector("main[data-every]"), readouts);
