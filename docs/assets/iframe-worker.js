// Lets the search work where the site is opened as files: browsers start no worker from a file, so its script
// runs in a hidden frame instead. Served pages keep real workers.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      this.waiting = []
      document.body.append(this.frame)
      const inside = this.frame.contentWindow
      inside.answer = (data) => {
        const event = new MessageEvent("message", { data })
        this.dispatchEvent(event)
        this.onmessage?.(event)
      }
      inside.ready = () => {
        this.waiting.forEach((data) => this.send(data))
        this.waiting = null
      }
      const script = inside.document.createElement("script")
      script.src = url
      script.onload = inside.ready
      const before = inside.document.createElement("script")
      before.textContent = "window.postMessage = (data) => answer(data)"
      inside.document.head.append(before, script)
    }
    send(data) {
      this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }))
    }
    postMessage(data) {
      this.waiting ? this.waiting.push(data) : this.send(data)
    }
    terminate() {
      this.frame.remove()
    }
  }
}
