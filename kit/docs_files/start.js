// A file of its own, so that the page needs no inline script and a strict Content-Security-Policy holds.
const place = document.getElementById("swagger-ui");
SwaggerUIBundle({
  url: place.dataset.openapi,
  domNode: place,
  deepLinking: true,
  displayRequestDuration: true,
  // Its default is a service on another host.
  validatorUrl: null,
});
