// The viewer's preferences stay in the viewer's browser: a cookie, and the theme where Streamlit looks for it.
export default function ({ data }) {
  const year = 365 * 86400;
  document.cookie = `${data.cookie}=${data.value}; path=/; max-age=${year}; samesite=lax`;
  const wanted = JSON.stringify(data.theme);
  let other = false;
  for (const page of data.pages) {
    const key = `stActiveTheme-${page}-v2`;
    const now = localStorage.getItem(key) ?? '"System"';
    if (now !== wanted) {
      localStorage.setItem(key, wanted);
      other = true;
    }
  }
  if (other) location.reload();
}
