// To a share's page, as a click on the page's own link goes there. (The server could switch pages, too, but a page whose
// live part asks again at that moment would be answered for the page before, and stay empty.)
export default function go(send, name, share) {
  send(name, share); // the server notes which share is meant
  const base = location.pathname.replace(/\/[^/]*$/, "");
  const link = () =>
    [...document.querySelectorAll("a[href]")].find((a) => a.pathname === `${base}/symbol` && a.origin === location.origin);
  const there = () => location.pathname === `${base}/symbol`;
  const whole = () => location.assign(`${base}/symbol?share=${encodeURIComponent(share)}`);
  if (!link()) return whole();
  // Once what the server noted is drawn: its answer must not come into the page that follows. A page that is still
  // being drawn may not hear a click: then the address is opened as a whole.
  const already = there(), since = Date.now();
  let clicked = 0;
  const watch = setInterval(() => {
    const now = Date.now() - since;
    const app = document.querySelector("[data-testid=stApp]");
    if (clicked) {
      if (there()) clearInterval(watch);
      else if (now - clicked > 4000) { clearInterval(watch); whole(); }
    } else if (now > 80 && (now > 3000 || !app || app.dataset.testScriptState === "notRunning")) {
      clicked = now;
      if (already) clearInterval(watch);
      (link() || { click: whole }).click();
    }
  }, 20);
}
