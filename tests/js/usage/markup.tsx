// How a TypeScript project that writes markup uses the element: never run, only checked.
import "django-sse-live";

const element = <sse-live src="/events/" persist="local" with-credentials text-connected="Live" />;
const state: string | undefined = document.querySelector("sse-live")?.live?.state;
console.log(element, state);
const job = <sse-live-job job="5f" may-stop text-running="Running…"><sse-live src="/events/" job-src="/static/job.js" /></sse-live-job>;
const text: string | undefined = document.querySelector("sse-live-job")?.job.text;
console.log(job, text);

// @ts-expect-error: not an attribute
console.log(<sse-live source="/events/" />);
// @ts-expect-error: not a storage
console.log(<sse-live src="/events/" persist="cookie" />);
