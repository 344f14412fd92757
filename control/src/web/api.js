// Reading /api/v1: with the token of this tab, and never waiting longer than PATIENCE.

const PATIENCE = 4000;
const KEY = "weir-token";

/** The appliance wants a token, or another one. */
export class TokenNeeded extends Error {}

export const token = {
  get: () => sessionStorage.getItem(KEY),
  keep: (text) => sessionStorage.setItem(KEY, text),
  forget: () => sessionStorage.removeItem(KEY),
};

/** The answer to a path below api/v1/. */
export async function read(path, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== ""));
  const shown = token.get();
  const headers = shown ? { Authorization: `Bearer ${shown}` } : {};
  const answer = await fetch(`api/v1/${path}?${query}`, { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  if (answer.status === 401) throw new TokenNeeded(shown ? "This is not its token." : "");
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw new Error(said.error ?? `status ${answer.status}`);
  }
  return answer.json();
}
