// How numbers and failures are written.

/** Return a number as a person reads it: six digits, thousands apart. */
export function figure(value, digits = 6) {
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (size && (size < 1e-4 || size >= 1e9)) return value.toExponential(Math.min(4, digits));
  return value.toLocaleString("en-US", { maximumSignificantDigits: digits });
}

export const percent = (share) => `${(100 * share).toFixed(1)} %`;

/** Return why a call failed: the server's own words where there are any. */
export function reasonOf(error) {
  if (!(error instanceof Error)) return error.message ?? "The server gave no reason.";
  console.error(error);
  return "The server can't be reached, or its answer can't be read. The next change tries again.";
}
