export type State = import("./sse-live.js").State;
/**
 * Draws the light into an element. Returns a function that shows a state there, or the current state's words again.
 * @param {HTMLElement} host
 * @returns {(state: State) => void}
 */
export declare function draw(host: HTMLElement): (state: State) => void;
