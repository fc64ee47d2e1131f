export type State = import("./sse-live.js").State;
/**
 * Draws the light into an element, and gives what shows a state there, or the words of the present one anew.
 * @param {HTMLElement} host
 * @returns {(state: State) => void}
 */
export declare function draw(host: HTMLElement): (state: State) => void;
