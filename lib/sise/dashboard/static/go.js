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
  setTimeout(() => (link() || { click: whole }).click(), 60);
  if (there()) return;
  // A page that is still being drawn may not hear a click: then the address is opened as a whole.
  const since = Date.now();
  const watch = setInterval(() => {
    if (there()) clearInterval(watch);
    else if (Date.now() - since > 4000) { clearInterval(watch); whole(); }
  }, 100);
}
